"""Files, records, configs: what the modules at the top and the study share."""
