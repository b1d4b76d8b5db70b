"""The instrument behind `sightline profile`: conditions, devices, predictions; nothing heavy is imported here."""
