"""The words of the product as typed, frozen values. Imports nothing of the project."""
