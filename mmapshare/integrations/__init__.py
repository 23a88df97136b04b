"""Where other programs meet mmapshare. Nothing in the package imports what is here."""
