"""What people see of a share: cards, and `watch`. A leaf: it is handed what it shows."""
