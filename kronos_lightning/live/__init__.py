"""Live operation: decisions after each close, in a record that scores and a paper account are derived from."""
