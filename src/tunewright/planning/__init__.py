"""What a training needs: compute, memory, time; before anything is spent."""
