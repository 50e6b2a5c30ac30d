"""The UNet that reads a context."""
