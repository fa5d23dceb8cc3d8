"""Values to bits and back: writers, symbols, quantisers. Numpy only."""
