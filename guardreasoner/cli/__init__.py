"""The command line: LightningCLI for fit, validate, test and predict; one file in ``commands`` for each other verb."""
