"""What well-known data sets hold, one TOML file each; prep.manifest reads them."""
