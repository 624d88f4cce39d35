"""Image data: procedural classes, class stores, and the sources that fill them."""
