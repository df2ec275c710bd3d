"""`medix report`: a run folder as one self-contained page, its main curve as PNG and CSV, and runs compared."""
