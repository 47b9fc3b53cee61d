"""What sampling and training will cost, predicted from shapes."""
