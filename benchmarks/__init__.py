"""What the documentation promises, measured: whole syncs through a real Airflow, beside skopeo and a bare loop.

``make bench`` runs all of it; ``python -m benchmarks --help`` says what can be chosen.
"""
