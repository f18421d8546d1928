"""From a scan as stored to what the networks see: brain mask, bias field, intensity normalisation."""
