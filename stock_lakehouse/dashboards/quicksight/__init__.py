"""The dashboard on Amazon QuickSight: data source, data sets and dashboard, and how they are brought to what the lake has."""
