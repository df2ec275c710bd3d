"""One reader for every data set, in training and in evaluation: `open_source`, or `records` for a plain loop."""

from __future__ import annotations

from data_prep.sources.opening import check_apart as check_apart
from data_prep.sources.opening import open_source as open_source
from data_prep.sources.opening import records as records
from data_prep.sources.reader import Source as Source
