"""Devices: where they come from (source, nvidia, fake, inventory) and how they are cut and chosen (slices, fit)."""
