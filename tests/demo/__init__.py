"""The cluster as a picture: three nodes on a shared Postgres, clients that walk them, and what can go wrong."""
