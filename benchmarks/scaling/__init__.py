"""How time and memory grow with images and with classes: cases, and how they are measured."""
