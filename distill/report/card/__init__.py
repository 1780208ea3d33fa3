"""A model card: what is known of one model, for people and for hubs; no model, no network."""
