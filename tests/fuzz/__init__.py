"""Fuzzing of everything that is read: damaged and hostile files give a UserError, within bounded memory."""
