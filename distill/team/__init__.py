"""The processes of a run: signals, who notices that one stands still; torch is known to consensus and shares alone."""
