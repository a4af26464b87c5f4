"""Questions to a store: counts, percentiles and single events, without disturbing the intake.

sources      what questions are asked of: a store's folder or a Delta table
filters      what a question is about: a range of time and values
answers      what it is answered with
buckets      latencies in buckets that are at most 1 % wide
rollup       a Parquet file's events, counted: the panels read it in place of the file
rollups      the rollups of a snapshot, kept in the store's folder
counting     counts and percentiles over rollups
panels       the page's panels
events       single events: the newest, the slowest, one by its id
report       the report of a whole range
questions    all of it over one store
process      the process that answers, apart from the intake
service      class `QueryService`, the collector's side of it
"""
