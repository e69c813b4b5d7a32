"""What pictures say: bags of concepts of single pictures, and one graph of pictures, texts and the things in them."""
