"""Floor 2 (tier 4): export formats proven equal, the Hub, the model card, and the server."""
