"""What is published: put into the repository, listed, rolled back, compared, pruned, checked."""
