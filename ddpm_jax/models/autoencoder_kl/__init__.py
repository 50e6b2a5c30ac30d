"""The autoencoder of latent diffusion."""
