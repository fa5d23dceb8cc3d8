"""How payloads reach the server: latency, energy, who is heard. May use wireless and below."""
