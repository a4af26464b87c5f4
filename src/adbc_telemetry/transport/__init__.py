"""HTTP that ends by its deadline: connections, name look-ups, retries, credentials and errors."""
