"""Arrays to codes and back: quantize, dequantize, fake_quantize."""
