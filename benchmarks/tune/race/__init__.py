"""The race: ways of customising one model side by side, and several subjects in one picture. See README.md here."""
