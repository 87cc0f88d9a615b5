"""Model files to layers: what is quantizable in a graph, under which names, fused as an engine would."""
