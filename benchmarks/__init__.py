"""Benchmarks of flask_asynclog beside what people use instead; ``python -m benchmarks`` runs them."""
