"""Small programs to start from, each with the picture that it draws."""
