"""Link prediction: which edge of a knowledge graph is missing, by counting and by learnt vectors, ranked by one protocol."""
