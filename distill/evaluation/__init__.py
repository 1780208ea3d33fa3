"""What a trained model is worth: accuracy and calibration, latency, cost, agreement, and the spread over seeds.

Import from the modules themselves; torchmetrics takes seconds to import, and only ``metrics`` needs it.
"""
