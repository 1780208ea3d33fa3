"""The processes of a run: how signals end them, and who notices that one stands still. Nothing here imports torch."""
