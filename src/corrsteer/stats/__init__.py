"""Statistics of many latents against one outcome; arrays in, numbers out."""
