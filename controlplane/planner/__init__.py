"""What fits where and at what price: pure arithmetic from the model's geometry."""
