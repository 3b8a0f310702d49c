"""What a class needs: exercises with their checks, a grader, and the leaderboard."""
