"""How variants are run: what does not depend on a runtime."""
