"""The command line: LightningCLI for fit, validate, test and predict, and one file per verb of our own."""
