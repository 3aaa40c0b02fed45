"""``check-repo``: what the server would refuse in a repository, and what it would serve worse than it could."""
