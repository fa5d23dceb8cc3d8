"""Values to bits and back: writers, symbols, quantisers. May use numpy."""
