"""Learning on a knowledge graph as a graph: what class a node is of, from its features and from those around it."""
