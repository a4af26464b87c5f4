"""What all other parts build on: the guard at the border, forks, and locks and threads of our own."""
