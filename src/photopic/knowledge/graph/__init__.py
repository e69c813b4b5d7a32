"""Knowledge graphs of pictures and texts: five families of relations in Parquet tables, after UKnow (arXiv 2302.06891)."""
