"""From numbers to what people look at: tables, CSV, pictures. No model, and no torch."""
