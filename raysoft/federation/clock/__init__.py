"""When things happen: the simulated time, and what is delivered when. May use the rest of federation but its
coordinator."""
