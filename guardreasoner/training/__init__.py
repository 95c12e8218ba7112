"""R-SFT and HS-DPO: losses, training modules, reference model, data modules and step sampler."""
