"""The pages of the service in the Hub's look."""
