"""What only a Mac can tell: its chip, its power and heat, and a report of Core ML on its compute units."""
