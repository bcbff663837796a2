"""Pictures: phases as figures, as files and as fields of lines."""
